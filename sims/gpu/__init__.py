"""The first minutes on a GPU: what works, how far from the CPU it is, and how fast (`./run gpu`).

Everything but the profile needs torch, numpy and scipy only, so that it runs on a machine where nothing was installed.
"""
