"""In C++: the first layer's kernels, TensorFlow's operations around them, and a clock."""
