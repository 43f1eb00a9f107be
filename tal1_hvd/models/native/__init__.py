"""The first layer in C++: kernels, and TensorFlow's operations around them."""
