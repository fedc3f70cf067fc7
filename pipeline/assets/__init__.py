"""Input images and output files outside this machine: addresses, checks before buying, hosting, object stores."""
