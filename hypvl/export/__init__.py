"""Models and embeddings in the formats of other programs: ONNX, hyper-models, stores for search, viewers."""

from hypvl.export.onnx import export_onnx as export_onnx
