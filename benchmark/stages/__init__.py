"""The stages of a cell: each is looked up in the store before it is done, and kept there."""
