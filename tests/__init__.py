"""Polly's tests. Their helpers are imported as `tests.support` and `tests.cluster.mesos_cluster`, with or without pytest."""
