"""Back to the customer system: reads it asked for, determinants, statements, adjustments, the journal; files by
template, each acknowledged, nothing sent twice.

Belongs here: what a record of each output holds (its versioned contract), templates, deliveries and their answers. Does
not belong here: how a figure comes about (billing/, vee/, unbilled/).
"""
