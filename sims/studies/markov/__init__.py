"""Markov-categorical language modelling: do states learn the predictive operator of the task, and in which order?"""
