"""The Flower side of a site: a relay with network but without data, keys of the journal, or torch."""
