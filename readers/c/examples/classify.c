/*
 * The fully connected tail of a classifier, computed on the packed weights of a mapped bundle:
 *
 *     classify [-k COUNT] BUNDLE FEATURES WEIGHT[:BIAS]...
 *
 * FEATURES is a file of little-endian binary32 values, or - for stdin: what the network's convolutions have made. Each
 * layer is the name of a tensor, and of its bias; ReLU stands between layers, softmax behind the last. Weights are
 * outputs by inputs or, where only that fits, inputs by outputs. Prints the COUNT (5) best classes: probability,
 * number, label. The exit codes are the library's.
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mobilemodel.h"

enum { MOST_LAYERS = 8, LONGEST_NAME = 1024 };

typedef struct layer {
    mm_tensor weight, bias;
    bool has_bias, transposed;
    uint64_t inputs, outputs;
} layer;

/* Every buffer has the largest size that any layer needs. */
typedef struct buffers {
    float *x, *y, *bias; /* `values` each */
    uint64_t values;
    uint8_t *scratch;
    uint64_t scratch_size;
    uint8_t *labels;
    uint64_t labels_size;
} buffers;

static mm_status complain(const char *what, mm_status status) {
    fprintf(stderr, "%s\nclassify: %s\n", mm_status_name(status), what);
    return status;
}

/* ------------------------------------------------------------------------------------------------ what is to be run */

static mm_status find_part(const mm_bundle *bundle, const char *name, size_t length, mm_tensor *tensor) {
    char terminated[LONGEST_NAME + 1];
    if (length > LONGEST_NAME) {
        return MM_TENSOR_NOT_FOUND;
    }
    memcpy(terminated, name, length);
    terminated[length] = '\0';
    return mm_find(bundle, terminated, tensor);
}

/* Names may hold colons: any colon that leaves two names of tensors is the one. */
static mm_status find_layer(const mm_bundle *bundle, const char *argument, layer *found) {
    found->has_bias = false;
    mm_status status = find_part(bundle, argument, strlen(argument), &found->weight);
    for (const char *colon = strchr(argument, ':'); colon != NULL && status == MM_TENSOR_NOT_FOUND;
         colon = strchr(colon + 1, ':')) {
        status = find_part(bundle, argument, (size_t)(colon - argument), &found->weight);
        if (status == MM_OK) {
            status = find_part(bundle, colon + 1, strlen(colon + 1), &found->bias);
            found->has_bias = status == MM_OK;
        }
    }
    return status;
}

/* inputs: what the layer before gives; 0 for the first one. */
static mm_status check_layer(layer *checked, uint64_t inputs) {
    const mm_tensor *weight = &checked->weight;
    if (weight->status != MM_OK || (checked->has_bias && checked->bias.status != MM_OK)) {
        return complain("a tensor of a later version", weight->status != MM_OK ? weight->status : checked->bias.status);
    }
    if (weight->rank < 2 || weight->elements == 0) {
        return complain("a weight is not a matrix", MM_USAGE);
    }
    uint64_t rows = weight->dims[0], columns = weight->elements / rows;
    checked->transposed = inputs != 0 && columns != inputs && rows == inputs;
    checked->inputs = checked->transposed ? rows : columns;
    checked->outputs = checked->transposed ? columns : rows;
    if (inputs != 0 && checked->inputs != inputs) {
        return complain("a weight does not fit the layer before", MM_USAGE);
    }
    const mm_tensor *bias = &checked->bias;
    if (checked->has_bias && (bias->elements != checked->outputs || mm_decoded_size(bias, MM_FLOAT, 1) == 0)) {
        return complain("a bias does not fit its weight", MM_USAGE);
    }
    return MM_OK;
}

static mm_status find_layers(const mm_bundle *bundle, char **names, int count, layer *layers) {
    for (int i = 0; i < count; i++) {
        mm_status status = find_layer(bundle, names[i], &layers[i]);
        if (status != MM_OK) {
            return complain(names[i], status);
        }
        status = check_layer(&layers[i], i == 0 ? 0 : layers[i - 1].outputs);
        if (status != MM_OK) {
            return status;
        }
    }
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ memory */

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void *allocate(uint64_t count, size_t size) {
    return count < SIZE_MAX / size ? malloc((size_t)count * size + 1) : NULL;
}

static mm_status allocate_buffers(const mm_bundle *bundle, const layer *layers, int count, buffers *made) {
    int64_t labels = mm_content_size(bundle, MM_LABELS);
    *made = (buffers){.labels_size = labels > 0 ? (uint64_t)labels : 0, .scratch_size = mm_content_scratch(bundle)};
    for (int i = 0; i < count; i++) {
        made->values = larger(made->values, larger(layers[i].inputs, layers[i].outputs));
        made->scratch_size = larger(made->scratch_size, mm_fc_scratch(bundle, &layers[i].weight));
        if (layers[i].has_bias) {
            made->scratch_size = larger(made->scratch_size, mm_decode_scratch(bundle, &layers[i].bias));
        }
    }
    made->x = allocate(made->values, sizeof(float));
    made->y = allocate(made->values, sizeof(float));
    made->bias = allocate(made->values, sizeof(float));
    made->scratch = allocate(made->scratch_size, 1);
    made->labels = allocate(made->labels_size, 1);
    if (!made->x || !made->y || !made->bias || !made->scratch || !made->labels) {
        return complain("out of memory", MM_ERROR);
    }
    return MM_OK;
}

static void free_buffers(buffers *used) {
    free(used->x);
    free(used->y);
    free(used->bias);
    free(used->scratch);
    free(used->labels);
}

/* ------------------------------------------------------------------------------------------------ the network */

/* Exactly count values, all of them finite. */
static mm_status read_features(const char *path, float *x, uint64_t count) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL) {
        return complain("the features cannot be opened", MM_USAGE);
    }
    uint64_t read = 0;
    bool finite = true;
    uint8_t byte[4];
    while (read < count && fread(byte, sizeof byte, 1, file) == 1) {
        uint32_t bits = (uint32_t)byte[3] << 24 | (uint32_t)byte[2] << 16 | (uint32_t)byte[1] << 8 | byte[0];
        memcpy(&x[read], &bits, sizeof bits);
        finite = finite && isfinite(x[read]);
        read++;
    }
    bool exact = read == count && fgetc(file) == EOF;
    if (file != stdin) {
        fclose(file);
    }
    if (!exact || !finite) {
        return complain(exact ? "a feature is not finite" : "not as many features as the first layer takes", MM_USAGE);
    }
    return MM_OK;
}

/* y = W x + bias; x and y change places. */
static mm_status run_layer(const mm_bundle *bundle, const layer *run, buffers *with) {
    const float *bias = NULL;
    size_t scratch_size = (size_t)with->scratch_size, inputs = (size_t)run->inputs, outputs = (size_t)run->outputs;
    if (run->has_bias) {
        mm_status status = mm_decode(bundle, &run->bias, MM_FLOAT, 0, mm_slices(&run->bias), with->bias,
                                     outputs * sizeof(float), with->scratch, scratch_size);
        if (status != MM_OK) {
            return status;
        }
        bias = with->bias;
    }
    mm_status status;
    if (run->transposed) {
        status = mm_fc_transposed(bundle, &run->weight, with->x, inputs, bias, with->y, outputs, with->scratch,
                                  scratch_size);
    } else {
        status = mm_fc(bundle, &run->weight, with->x, inputs, bias, with->y, outputs, with->scratch, scratch_size);
    }
    float *result = with->y;
    with->y = with->x;
    with->x = result;
    return status;
}

static void rectify(float *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        values[i] = values[i] > 0 ? values[i] : 0;
    }
}

static void softmax(float *values, uint64_t count) {
    float largest = values[0];
    for (uint64_t i = 1; i < count; i++) {
        largest = values[i] > largest ? values[i] : largest;
    }
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        values[i] = expf(values[i] - largest);
        sum += values[i];
    }
    for (uint64_t i = 0; i < count; i++) {
        values[i] = (float)(values[i] / sum);
    }
}

static mm_status run_layers(const mm_bundle *bundle, const layer *layers, int count, buffers *with) {
    for (int i = 0; i < count; i++) {
        mm_status status = run_layer(bundle, &layers[i], with);
        if (status != MM_OK) {
            return complain("a layer cannot be computed", status);
        }
        if (i < count - 1) {
            rectify(with->x, layers[i].outputs);
        }
    }
    softmax(with->x, layers[count - 1].outputs);
    return MM_OK;
}

/* ------------------------------------------------------------------------------------------------ the answer */

/* A name comes from the file: what is not printable ASCII is shown as \xNN. */
static void print_escaped(mm_bytes text) {
    for (size_t i = 0; i < text.size; i++) {
        bool plain = text.data[i] >= 0x20 && text.data[i] < 0x7F && text.data[i] != '\\';
        printf(plain ? "%c" : "\\x%02x", text.data[i]);
    }
}

static mm_status print_best(const mm_bundle *bundle, buffers *with, uint64_t classes, uint64_t best) {
    bool labelled = mm_content_size(bundle, MM_LABELS) >= 0;
    if (labelled) {
        mm_status status = mm_read_content(bundle, MM_LABELS, with->labels, (size_t)with->labels_size, with->scratch,
                                           (size_t)with->scratch_size);
        if (status != MM_OK) {
            return complain("the labels cannot be read", status);
        }
    }
    for (uint64_t k = 0; k < best && k < classes; k++) {
        uint32_t place = 0;
        for (uint32_t i = 1; i < classes; i++) {
            place = with->x[i] > with->x[place] ? i : place;
        }
        mm_bytes label = {NULL, 0};
        if (labelled && mm_label(with->labels, (size_t)with->labels_size, place, &label) != MM_OK) {
            label = (mm_bytes){NULL, 0}; /* fewer labels than classes */
        }
        printf("%.6f  %lu  ", (double)with->x[place], (unsigned long)place);
        print_escaped(label);
        putchar('\n');
        with->x[place] = -1; /* below every probability */
    }
    return fflush(stdout) == 0 ? MM_OK : MM_ERROR;
}

static mm_status classify(const mm_bundle *bundle, const char *features, char **names, int count, uint64_t best) {
    layer layers[MOST_LAYERS];
    buffers with = {.values = 0};
    mm_status status = find_layers(bundle, names, count, layers);
    if (status == MM_OK) {
        status = allocate_buffers(bundle, layers, count, &with);
    }
    if (status == MM_OK) {
        status = read_features(features, with.x, layers[0].inputs);
    }
    if (status == MM_OK) {
        status = run_layers(bundle, layers, count, &with);
    }
    if (status == MM_OK) {
        status = print_best(bundle, &with, layers[count - 1].outputs, best);
    }
    free_buffers(&with);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the program */

/* Maps the file: pages come in as they are used, and are never written. */
static mm_status map_file(const char *path, void **data, size_t *size) {
    struct stat about;
    int descriptor = open(path, O_RDONLY);
    if (descriptor < 0) {
        return complain("the bundle cannot be opened", MM_USAGE);
    }
    void *mapped = MAP_FAILED;
    if (fstat(descriptor, &about) == 0 && about.st_size > 0 && (uintmax_t)about.st_size <= SIZE_MAX) {
        mapped = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    }
    close(descriptor);
    if (mapped == MAP_FAILED) {
        return complain("the bundle cannot be mapped", MM_USAGE);
    }
    *data = mapped;
    *size = (size_t)about.st_size;
    return MM_OK;
}

int main(int count, char **arguments) {
    uint64_t best = 5;
    int option;
    while ((option = getopt(count, arguments, "k:")) == 'k') {
        best = strtoul(optarg, NULL, 10);
    }
    int layers = count - optind - 2;
    if (option != -1 || best == 0 || layers < 1 || layers > MOST_LAYERS) {
        fprintf(stderr, "USAGE\nusage: classify [-k COUNT] BUNDLE FEATURES WEIGHT[:BIAS]...\n");
        return mm_exit_code(MM_USAGE);
    }
    void *file = NULL;
    size_t file_size = 0;
    mm_bundle bundle;
    mm_status status = map_file(arguments[optind], &file, &file_size);
    if (status != MM_OK) {
        return mm_exit_code(status);
    }
    status = mm_open(&bundle, file, file_size, NULL);
    if (status == MM_OK) {
        status = classify(&bundle, arguments[optind + 1], arguments + optind + 2, layers, best);
    } else {
        complain("the bundle cannot be opened", status);
    }
    munmap(file, file_size);
    return mm_exit_code(status);
}
