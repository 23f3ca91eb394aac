"""Language models as judges: comparisons in both orders, ratings, and what may be wrong with them.

What a language model prefers is not what people prefer. Nothing here is ever mixed with people's
answers: other files, other kinds of results.
"""
