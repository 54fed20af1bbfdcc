"""Carry-over: which findings of the toy hold for language models?"""
