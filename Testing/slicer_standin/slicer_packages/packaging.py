"""Slicer's package installer, as far as it decides something; the desk stands in for pip itself."""


def isPipInstallInProgress() -> bool:
    return False
