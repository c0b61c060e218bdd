"""Exports the models that bench/serving asks, and a request for each. usage: export_models.py OUT_DIR"""
import json, os, sys
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

out = os.path.abspath(sys.argv[1])
v1 = tf.compat.v1
rng = np.random.default_rng(1)
models = {}


def save(name, build, row_shape):
    """A model of one float input `x` [batch, *row_shape] and one output `y`, and a request of one row."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, *row_shape], name='x')
        y = tf.identity(build(x), name='y')
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {'images': info(x)}, {'scores': info(y)}, 'tensorflow/serving/predict')
        builder = v1.saved_model.Builder(f'{out}/{name}/1')
        builder.add_meta_graph_and_variables(session, ['serve'], {'serving_default': signature})
        builder.save()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    values = rng.random([1, *row_shape], dtype=np.float32)
    tensor = request.inputs['images']
    tensor.dtype = tf.float32.as_datatype_enum
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend(values.ravel())
    with open(f'{out}/{name}/request.bin', 'wb') as f:
        f.write(request.SerializeToString())
    models[name] = {'row_shape': list(row_shape), 'feed': 'x:0', 'fetch': 'y:0'}


def weights(*shape):
    return v1.get_variable(f'w{weights.n}', initializer=(rng.standard_normal(shape) * 0.05).astype(np.float32))


def variable(*shape):
    weights.n += 1
    return weights(*shape)


weights.n = 0


def mnist(x):
    return tf.nn.softmax(tf.matmul(x, variable(784, 10)) + variable(10))


def cnn(x):
    x = tf.reshape(x, [-1, 28, 28, 1])
    x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, variable(3, 3, 1, 16), 1, 'SAME')), 2, 2, 'SAME')
    x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, variable(3, 3, 16, 32), 1, 'SAME')), 2, 2, 'SAME')
    x = tf.reshape(x, [-1, 7 * 7 * 32])
    return tf.nn.softmax(tf.matmul(tf.nn.relu(tf.matmul(x, variable(7 * 7 * 32, 64))), variable(64, 10)))


def megabyte(x):
    return tf.reduce_sum(x, 1, keepdims=True)


def transformer(x):
    """DistilBERT's size: 6 layers of 768, 12 heads, 3072; 32 positions of embeddings, random weights."""
    positions, width, heads = 32, 768, 12
    for _ in range(6):
        def split(t):
            return tf.transpose(tf.reshape(t, [-1, positions, heads, width // heads]), [0, 2, 1, 3])
        flat = tf.reshape(x, [-1, width])
        q, k, v = (split(tf.matmul(flat, variable(width, width))) for _ in range(3))
        attention = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / 8.0)
        mixed = tf.reshape(tf.transpose(tf.matmul(attention, v), [0, 2, 1, 3]), [-1, width])
        flat += tf.matmul(mixed, variable(width, width))
        flat += tf.matmul(tf.nn.gelu(tf.matmul(flat, variable(width, 3072))), variable(3072, width))
        x = tf.reshape(flat, [-1, positions, width])
    return tf.reduce_mean(x, 1)


save('mnist', mnist, [784])
save('cnn', cnn, [784])
save('megabyte', megabyte, [262144])
if '--large' in sys.argv:
    save('transformer', transformer, [32, 768])
with open(f'{out}/models.json', 'w') as f:
    json.dump(models, f, indent=1)
