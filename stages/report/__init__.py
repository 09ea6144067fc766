"""Stage ``report``: metrics, curves and answers → one page that a person understands in half a minute.

``content`` reads the files, ``evidence`` what they rest on, ``verdicts`` holds every judgement and its rule,
``figures`` and ``media`` draw, the templates lay out. ``compare`` puts runs side by side, ``speed`` is this machine's.
"""
