"""The program on the agent: attach, mount, run, release."""
