"""The figures of the paper, made from runs of ours, each published number beside ours."""
