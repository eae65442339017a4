"""Trained networks in forms that need this package no more: ONNX files, and folders as model hubs have them."""
