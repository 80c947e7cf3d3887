"""litsexp: does this choice really help a 2D U-Net segment liver and tumor, and by how much?"""

__version__ = "0.1.0"
