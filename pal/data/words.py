"""Words of English that several rooms need to know."""

import re

# Words that say nothing of a person by themselves.
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about am an and are as at be been but by can could did do does for from get got had has "
        "have he her him his i if in into is it its just like m me more my myself not of on or our "
        "out s she so some t that the their them then there they this to too up us use used very "
        "was we were what when which who will with would you your",
    )
)
