"""Findings of validation in the exception queue: cases that hold a bill until the data are right or a person releases
them.
"""
