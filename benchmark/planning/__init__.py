"""Planning: estimate the cost of a suite from counts of work and the speed of devices."""
