"""tttab in other packages' frames, one module each; what they need is an extra.

What does not belong here: anything that tttab itself uses.
"""
