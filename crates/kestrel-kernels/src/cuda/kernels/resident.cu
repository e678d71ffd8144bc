// A batch of floats made of 8-bit images that lie on the device: src/pixels/resident.rs.
//
// y[b, c, i, j] = table[c, x[image_b, rows_b[i], columns_b[j], c]], or a padding's colour, or an erased rectangle's value.
// Nothing is computed: every float is one of the table's, so the numbers are the host's bit for bit.
//
// Shapes: images [N, h, w, 3] u8, batch [B, 3, H, W] f32, table [3, 256] and then [fills, 3].

// The first words of a placement; FIRST_FILL is that of src/pixels/resident.rs, the layout that of src/cuda/resident.rs.
struct Header {
    unsigned image;
    unsigned top, left, height, width;  // The erased rectangle; empty if nothing is erased.
    float values[3];
};

static const unsigned FIRST_FILL = 65520;

// One thread an element of a plane, which it writes in all three: 3 reads of neighbouring bytes, 3 coalesced writes.
// `placements` is [B, words]: a header, then H numbers of rows and W of columns, 16 bits each.
extern "C" __global__ void resident_batch(const unsigned char *__restrict__ pixels, const float *__restrict__ table,
                                          const unsigned *__restrict__ placements, float *__restrict__ out,
                                          const unsigned batch, const unsigned words, const unsigned height,
                                          const unsigned width, const unsigned image_height,
                                          const unsigned image_width) {
    const size_t plane = (size_t)height * width;
    const size_t elements = batch * plane;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x; at < elements; at += step) {
        const size_t place = at / plane;
        const unsigned within = (unsigned)(at - place * plane);
        const unsigned y = within / width, x = within - y * width;
        const unsigned *words_of_place = placements + place * words;
        const Header *header = reinterpret_cast<const Header *>(words_of_place);
        const unsigned short *rows = reinterpret_cast<const unsigned short *>(header + 1);
        float *to = out + place * 3 * plane + within;
        // Unsigned: a row above the rectangle is far below it.
        if (y - header->top < header->height && x - header->left < header->width) {
            for (unsigned channel = 0; channel < 3; ++channel) {
                to[channel * plane] = header->values[channel];
            }
            continue;
        }
        const unsigned row = rows[y], column = rows[height + x];
        const unsigned number = row > column ? row : column;
        if (number >= FIRST_FILL) {
            const float *fill = table + 3 * 256 + 3 * (number - FIRST_FILL);
            for (unsigned channel = 0; channel < 3; ++channel) {
                to[channel * plane] = fill[channel];
            }
            continue;
        }
        const unsigned char *pixel = pixels + (((size_t)header->image * image_height + row) * image_width + column) * 3;
        for (unsigned channel = 0; channel < 3; ++channel) {
            to[channel * plane] = table[channel * 256 + pixel[channel]];
        }
    }
}
