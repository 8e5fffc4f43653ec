"""Evaluation of published weights: images encoded once, linear evaluation on ImageNet, transfer to other data sets."""
