"""What a suite will take, before it is run: counts of work, devices, and what these add up to."""
