"""The view of a store that shows only the images with one tag."""
