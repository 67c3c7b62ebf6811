"""The stages of a cell: each is looked up in the store first, and stored there when done."""
