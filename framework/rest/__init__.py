"""The HTTP API under the command line: `/v2` in Marathon's JSON, `/v1` for the inventory. app.create_app and server.serve are its
two doors; nothing is imported here, for a broker that starts needs the web framework last of all."""
