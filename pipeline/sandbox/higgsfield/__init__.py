"""The sandbox of kind `higgsfield`: the vendor's own API, written from its published facts alone."""
