"""What goes into a deployment bundle unchanged: the files in ``bundle/``, for Python 3.8 and POSIX sh on the device."""
