"""Polly as a Mesos framework."""
