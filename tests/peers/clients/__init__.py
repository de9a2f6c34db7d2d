"""Programs that drive a peer with clients that are not ours, each run by the Python of the client's own environment."""
