"""Every sentence that a report prints about quality, in one place.

Each has a case in which it is said and one in which it must not be: tests/runtime/report/test_words.py fails for a sentence that
has none, and for a sentence about quality anywhere else in the report.
"""

from __future__ import annotations

# Of the outputs' signal.
TENTH_IS_ERROR = "a tenth of the signal or more is error"
FAR_OFF = "outputs only {figure} from the original's"
OUTPUT_RUINED = "output {part} only {figure} from the original's"
AGAINST_ORIGINAL = "inputs, against the original"
WORST_PART = ": {part}, the worst of {count} parts"

# Of answers, compared with the original's.
SAME_ANSWER = "same answer on {figure}"
LOST = "{lost} of {count} {things} lost"
KEPT = "kept {interval}"
ONLY_LOST = "lost {lost} of {count}"
LOST_AND_WON = "lost {lost} of {count}, won {won}"
NOTHING_CHANGED = "Nothing changed"
SIZE_UNCHANGED = "Size and speed unchanged"

# Of labels: what was lost of an accuracy, in points or in the measure's own unit.
AGAINST_ITS = "against the original's {change}"
NO_LOSS = "no loss"
NO_ACCURACY_LOST = "no accuracy lost"
MORE_ACCURATE = "{points} points more accurate"
LESS_ACCURATE = "{points} points less accurate"
UNCHANGED = "unchanged"
MEASURE_UNCHANGED = "{measure} unchanged"

# How sure it is.
INTERVAL = "95% interval {low} to {high}"
TOO_FEW_TO_JUDGE = "too few to judge"
TOO_FEW_INPUTS = "too few inputs to judge ({count})"
TOO_FEW_TO_TELL = "too few to tell"
TOO_FEW_FOR_SMALL_CHANGES = "too few to judge small changes by"
TOO_FEW_TO_SAY = "Judged on {count}: too few to say how often it is right."
NOTHING_KNOWN = "Nothing is known of its accuracy: the run had no data to judge it on."

# What a reader must see first.
IN_DOUBT = "in doubt"
ACCURACY_IN_DOUBT = "accuracy in doubt, see the inputs"
NOISE = "Calibrated on random noise, as asked: accuracy figures say nothing about real inputs."
OTHER_DATA = "Quality was judged on different data: the figures do not compare."

# The strip of inputs.
OTHER_ANSWERS = "These answers are others than the original's, the furthest off first."
SAME_BUT_FURTHEST = "The answer is the same one, and these are furthest off."
NEXT_FURTHEST = "Of all others these are furthest off; the answer of some is another one."
FROM_THE_MIDDLE = "From the middle of all inputs."
