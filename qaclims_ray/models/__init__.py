"""Networks: frozen CLIP and VQA encoders, and the CAM network that is trained."""
