"""The contact sheet: layout, cells, charts, thumbnails, and the grid as a video or a picture."""
