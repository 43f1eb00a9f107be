"""Build script: metadata stand in setup.cfg; here is only the compiled first layer.

It is built against the TensorFlow that is installed, and left out where there is none, or no
compiler: TensorFlow's own operations then serve in its place.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("tal1_hvd/models/native")


class BuildForTensorFlow(build_ext):
    """Adds the options that TensorFlow's headers and library need."""

    def build_extension(self, ext: Extension) -> None:
        """Build, or say why not."""
        try:
            import tensorflow as tf
        except ImportError:
            print("tal1-hvd: no TensorFlow here yet, so the first layer is not compiled")
            return
        ext.extra_compile_args += [*tf.sysconfig.get_compile_flags(), "-O3", "-Wno-psabi"]
        ext.extra_link_args += tf.sysconfig.get_link_flags()
        super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildForTensorFlow},
    ext_modules=[
        Extension(
            "tal1_hvd.models.native.dna_conv_pool",
            sources=sorted(str(path) for path in NATIVE.glob("*.cc")),
            depends=sorted(str(path) for path in NATIVE.glob("*.h")),
            language="c++",
            optional=True,
        )
    ],
)
