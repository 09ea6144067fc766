"""Stage ``report``: metrics, curves and answers → one page that a person understands in half a minute.

``content`` reads the files, ``verdicts`` holds every judgement and its rule, ``figures`` draws, the template lays out.
"""
