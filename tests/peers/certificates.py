"""Certificates for servers on 127.0.0.1, each with an authority of its own that a client can be told to trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


def certified(ca_file: Path) -> ssl.SSLContext:
    """A new certificate, whose authority is written to this file."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(ca_file))
    return context


def written(folder: Path) -> tuple[Path, Path]:
    """A new certificate for a server that is no Python: the authority's file, and one with the key and the certificate."""
    authority, ca_file, file = trustme.CA(), folder / "ca.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))
    return ca_file, file
