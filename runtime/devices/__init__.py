"""Machines that edgec measures and deploys on: this one, and boards over SSH.

>>> from edgec.runtime.devices import open_device
>>> with open_device("local") as device:
...     device.name
'local'
"""

from __future__ import annotations

import re

from edgec.graph.errors import UsageError
from edgec.runtime.devices.base import Completed, Device, JobState, run_job

__all__ = ["Completed", "Device", "JobState", "check_address", "open_device", "run_job"]


def open_device(address: str) -> Device:
    """The device at ``address``: 'local', or 'ssh://[user@]host[:port]'. Nothing is connected yet.

    Raises UsageError for any other address.
    """
    check_address(address)
    if address in ("local", "host"):
        from edgec.runtime.devices.local import LocalDevice

        return LocalDevice()
    from edgec.runtime.devices.ssh import SshDevice

    return SshDevice.at(address)


def check_address(address: str) -> None:
    """Raise UsageError for what is neither 'local' nor an address that `open_device` takes."""
    if address in ("local", "host"):
        return
    admitted = "a device is 'local' or ssh://user@host[:port]"
    if not isinstance(address, str) or not address.startswith("ssh://"):
        meant = (
            f"did you mean ssh://{address}?"
            if re.fullmatch(r"[\w.-]+@[\w.-]+(:\d+)?", str(address))
            else None
        )
        raise UsageError(
            f"unknown device {address!r}", why=meant, hint=f"{admitted[0].upper()}{admitted[1:]}."
        )
    from edgec.runtime.devices.openssh import Link

    port = Link.to(address).port
    if port is not None and not 1 <= port <= 65535:
        raise UsageError(f"not a device address: {address!r}", why=f"port {port} is not from 1 to 65535")
