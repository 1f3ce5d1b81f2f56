"""Running a network front to back over a data set, stopping at values on the way: what several rooms do, in one place."""
