"""Data sets as they are published: one file a layout, one record for all of them."""
