"""The hospital's own process: data, policy, journal, private training; no network, one Unix socket."""
