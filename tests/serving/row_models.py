"""Exports models whose rows are apart (rows/NAME), whose rows depend on each other (mixes/NAME), and of which
nothing is proven although they are apart (unproven/NAME). usage: row_models.py OUT_DIR"""
import os, sys
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import keras
import numpy as np
import tensorflow as tf
from keras import layers
out = os.path.abspath(sys.argv[1]); v1 = tf.compat.v1
rng = np.random.default_rng(7)


def spec(*shape, dtype=tf.float32, name='x'): return tf.TensorSpec(shape, dtype, name=name)


def function(name, f, *specs, **variables):
    """A SavedModel of one function; `variables` are made first and given to it."""
    module = tf.Module()
    for key, value in variables.items():
        setattr(module, key, tf.Variable(value, name=key))
    kept = {key: getattr(module, key) for key in variables}
    module.f = tf.function(lambda *x: {'y': f(*x, **kept)}, input_signature=specs)
    tf.saved_model.save(module, f'{out}/{name}/1', signatures=module.f.get_concrete_function())


def model(name, *stack, shape, dtype=None):
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in stack:
        x = layer(x)
    built = keras.Model(inputs, x)
    built.export(f'{out}/{name}/1', verbose=False)


def graph(name, build, dtype, *shape):
    """As TensorFlow 1 does it: `build` of a placeholder."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(dtype, shape, name='x')
        y = build(x)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = v1.saved_model.utils.build_tensor_info
        builder = v1.saved_model.Builder(f'{out}/{name}/1')
        builder.add_meta_graph_and_variables(session, ['serve'], {
            'serving_default': v1.saved_model.signature_def_utils.build_signature_def(
                {'x': info(x)}, {key: info(value) for key, value in y.items()}, 'tensorflow/serving/predict')},
            main_op=v1.tables_initializer())
        builder.save()


def weights(*shape): return rng.standard_normal(shape).astype(np.float32)


# ---- rows: Keras
model('rows/dense', layers.Dense(4, 'relu'), layers.Dense(3, 'softmax'), shape=(8,))
model('rows/sequence', layers.Dense(4, 'relu'), layers.LayerNormalization(), layers.GlobalAveragePooling1D(),
      layers.Dense(2), shape=(None, 8))
model('rows/image', layers.Conv2D(4, 3, activation='relu'), layers.BatchNormalization(), layers.MaxPooling2D(),
      layers.SeparableConv2D(4, 3, padding='same'), layers.AveragePooling2D(2), layers.Flatten(), layers.Dropout(0.5),
      layers.Dense(10, 'softmax'), shape=(14, 14, 1))
model('rows/larger_image', layers.Conv2DTranspose(4, 3, strides=2, padding='same'), layers.UpSampling2D(),
      layers.Resizing(14, 14), layers.GroupNormalization(2), layers.PReLU(), shape=(7, 7, 4))
model('rows/text', layers.Embedding(10, 8), layers.Conv1D(8, 3, padding='same'), layers.GlobalMaxPooling1D(),
      layers.Dense(1, 'sigmoid'), shape=(None,), dtype='int32')
model('rows/words', layers.StringLookup(vocabulary=['a', 'b']), layers.Embedding(4, 2), layers.Flatten(), shape=(3,),
      dtype='string')
words = keras.Input((None,), dtype='int32')
x = layers.Embedding(10, 16, mask_zero=True)(words)
x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True))
x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, 'gelu')(x)))
keras.Model(words, layers.Dense(2, 'softmax')(layers.GlobalAveragePooling1D()(x))).export(f'{out}/rows/attention/1',
                                                                                          verbose=False)
a, b = keras.Input((3,), name='a'), keras.Input((4,), name='b')
y = layers.Dense(2)(layers.Concatenate()([a, b]))
keras.Model({'a': a, 'b': b}, {'y': y, 'z': layers.Reshape((1, 2))(y)}).export(f'{out}/rows/two_inputs/1', verbose=False)

# ---- rows: functions
function('rows/top', lambda x: tf.cast(tf.math.top_k(x, 2).indices, tf.float32), spec(None, 5))
function('rows/cumulative', lambda x: tf.reverse(tf.cumsum(x, 1), [-1]), spec(None, 5))
def asserted(x):
    tf.debugging.assert_greater(x, -100.0)
    return x * 2.0

function('rows/asserted', asserted, spec(None, 5))
function('rows/einsum', lambda x, w: tf.einsum('abc,cd->abd', x, w), spec(None, 3, 4), w=weights(4, 2))
function('rows/looked_up', lambda x, w: tf.reduce_sum(tf.gather(w, x), 1), spec(None, 3, dtype=tf.int64), w=weights(10, 4))
function('rows/strings', lambda x: tf.strings.join([tf.strings.upper(x), '!']), spec(None, dtype=tf.string))
function('rows/as_many_zeros', lambda x: tf.concat([x, tf.zeros([tf.shape(x)[0], 2])], 1), spec(None, 3))
function('rows/one_hot', lambda x: tf.one_hot(x, 8), spec(None, dtype=tf.int32))

# ---- rows: TensorFlow 1
def transformer(x):
    positions, width, heads = 4, 8, 2
    def split(t):
        return tf.transpose(tf.reshape(t, [-1, positions, heads, width // heads]), [0, 2, 1, 3])
    flat = tf.reshape(x, [-1, width])
    w = [v1.get_variable(f'w{i}', initializer=weights(width, width)) for i in range(4)]
    q, k, v = (split(tf.matmul(flat, w[i])) for i in range(3))
    mixed = tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True)), v)
    flat += tf.matmul(tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, width]), w[3])
    return {'y': tf.reduce_mean(tf.reshape(flat, [-1, positions, width]), 1)}

def classify(serialized):
    parsed = v1.parse_example(serialized, {'x': v1.FixedLenFeature([3], tf.float32)})
    scores = tf.nn.softmax(tf.matmul(parsed['x'], v1.get_variable('w', initializer=weights(3, 2))))
    return {'classes': tf.tile(tf.constant([['low', 'high']]), [tf.shape(scores)[0], 1]), 'scores': scores}

def normalize_where_training(x):
    training = v1.placeholder_with_default(False, [])
    return {'y': v1.cond(training, lambda: x - tf.reduce_mean(x, 0), lambda: x * 2.0)}

def with_switch(build):
    def built(x):
        v1.disable_control_flow_v2()
        try:
            return build(x)
        finally:
            v1.enable_control_flow_v2()
    return built

graph('rows/transformer', transformer, tf.float32, None, 4, 8)
graph('rows/classify', classify, tf.string, None)
graph('rows/inference_phase', normalize_where_training, tf.float32, None, 3)
graph('rows/inference_phase_switch', with_switch(normalize_where_training), tf.float32, None, 3)

# ---- rows that depend on each other
function('mixes/mean', lambda x: x - tf.reduce_mean(x, 0), spec(None, 4))
function('mixes/maximum', lambda x: x / tf.reduce_max(tf.abs(x)), spec(None, 4))
function('mixes/batch_norm', lambda x: tf.raw_ops.FusedBatchNormV3(
    x=x, scale=[1.0, 1.0], offset=[0.0, 0.0], mean=[], variance=[], is_training=True).y, spec(None, 3, 3, 2))
function('mixes/softmax', lambda x: tf.nn.softmax(x, 0), spec(None, 4))
function('mixes/sorted', lambda x: tf.sort(x, 0), spec(None, 4))
function('mixes/cumulative', lambda x: tf.cumsum(x, 0), spec(None, 4))
function('mixes/reversed', lambda x: tf.reverse(x, [0]), spec(None, 4))
function('mixes/reshaped', lambda x: tf.reshape(tf.nn.softmax(tf.reshape(x, [1, -1])), tf.shape(x)), spec(None, 4))
function('mixes/reshaped_in_twos', lambda x: tf.reshape(tf.reduce_sum(tf.reshape(x, [-1, 8]), 1, keepdims=True) * tf.ones(
    [1, 2]), [-1, 1]), spec(None, 4))
function('mixes/transposed', lambda x: tf.matmul(x, tf.matmul(x, x, transpose_a=True)), spec(None, 4))
function('mixes/attention', lambda x: tf.matmul(tf.nn.softmax(tf.matmul(x, x, transpose_b=True)), x), spec(None, 4))
function('mixes/gathered', lambda x: tf.gather(x, tf.zeros_like(tf.cast(x[:, 0], tf.int32))), spec(None, 4))
function('mixes/first', lambda x: x - x[0:1], spec(None, 4))
function('mixes/unique', lambda x: tf.gather(tf.unique_with_counts(x).count, tf.unique_with_counts(x).idx), spec(
    None, dtype=tf.int32))
function('mixes/einsum', lambda x: tf.einsum('ab,cb->ac', x, x) @ x, spec(None, 4))
function('mixes/number_of_rows', lambda x: x * tf.cast(tf.shape(x)[0], tf.float32), spec(None, 4))
function('mixes/place', lambda x: x + tf.cast(tf.range(tf.shape(x)[0]), tf.float32)[:, None], spec(None, 4))
function('mixes/tiled', lambda x: tf.tile(x, [2, 1])[:tf.shape(x)[0] * 2:2], spec(None, 4))
function('mixes/dropout', lambda x: tf.nn.dropout(x, 0.5), spec(None, 64))
function('mixes/counted', lambda x, n: x + n.assign_add(1.0), spec(None, 4), n=0.0)
function('mixes/written', lambda x, n: (n.assign(x[0, 0]), x + n.read_value())[1], spec(None, 4), n=0.0)
function('mixes/branch', lambda x: tf.cond(tf.reduce_sum(x) > 2.0, lambda: x, lambda: -x), spec(None, 4))
graph('mixes/training_phase', lambda x: {'y': v1.cond(
    v1.placeholder_with_default(True, []), lambda: x - tf.reduce_mean(x, 0), lambda: x * 2.0)}, tf.float32, None, 3)

# ---- apart, but beyond the proof
function('unproven/map', lambda x: tf.map_fn(lambda row: row * 2.0, x), spec(None, 4))
model('unproven/lstm', layers.LSTM(4), layers.Dense(1), shape=(5, 3))
