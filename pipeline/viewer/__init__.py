"""The local web server of `dop view`."""
