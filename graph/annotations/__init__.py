"""What is right for pictures, as the field's tools write it: COCO's json, YOLO's data.yaml, folders of masks and of pictures."""
