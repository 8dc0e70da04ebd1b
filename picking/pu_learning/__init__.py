"""pu_learning"""
