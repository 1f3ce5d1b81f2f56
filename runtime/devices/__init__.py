"""Machines that edgec measures and deploys on: this one, and boards over SSH.

>>> from edgec.runtime.devices import open_device
>>> with open_device("local") as device:
...     device.name
'local'
"""

from __future__ import annotations

from edgec.graph.errors import UsageError
from edgec.runtime.devices.base import Completed, Device, JobState, run_job

__all__ = ["Completed", "Device", "JobState", "open_device", "run_job"]


def open_device(address: str) -> Device:
    """The device at ``address``: 'local', or 'ssh://[user@]host[:port]'. Nothing is connected yet.

    Raises UsageError for any other address.
    """
    if address in ("local", "host"):
        from edgec.runtime.devices.local import LocalDevice

        return LocalDevice()
    if address.startswith("ssh://"):
        from edgec.runtime.devices.ssh import SshDevice

        return SshDevice.at(address)
    raise UsageError(f"unknown device {address!r}", hint="A device is 'local' or ssh://user@host[:port].")
