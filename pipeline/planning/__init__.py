"""From a manifest to requests and a plan: binding, selection, saved plans, derived manifests."""
