"""qaclims_ray: pixel masks from image-level labels with QA-CLIMS, on one machine or a Ray cluster."""
