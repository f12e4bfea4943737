// Fields of so many cells that each of them as a shape would be slow: one image, made of what is visible.
const image_from = 4096;

function cell_image(rows, most, ramp) {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const shades = [...Array(256).keys()].map((i) => echarts.color.parse(echarts.color.lerp(i / 255, ramp)));
  const canvas = make('canvas', {width: columns, height: rows.length});
  const context = canvas.getContext('2d');
  const image = context.createImageData(columns, rows.length);
  rows.forEach((row, y) => row.forEach((value, x) => {
    if (value > 0) image.data.set([...shades[Math.round(255 * value / most)].slice(0, 3), 255], 4 * (y * columns + x));
  }));
  context.putImageData(image, 0, 0);
  return canvas;
}

function image_series(rows, most, ramp) {
  const source = cell_image(rows, most, ramp);
  return {
    type: 'custom', silent: true, clip: true, data: [[0, 0]],
    renderItem(params, api) {
      const {x, y, width, height} = params.coordSys;
      const [wide, high] = api.size([1, 1]);
      const [centre_x, centre_y] = api.coord([0, 0]);
      const canvas = make('canvas', {width: Math.round(width * devicePixelRatio), height: Math.round(height * devicePixelRatio)});
      const context = canvas.getContext('2d');
      context.imageSmoothingEnabled = false;
      context.drawImage(source, (x - centre_x) / wide + .5, (y - centre_y) / high + .5, width / wide, height / high, 0, 0, canvas.width, canvas.height);
      return {type: 'image', style: {image: canvas, x, y, width, height}};
    },
  };
}

// What the cell under the pointer says.
function image_hints(held, rows, title, show) {
  const zr = held.made.getZr();
  zr.on('mousemove', (event) => {
    const at = [event.offsetX, event.offsetY];
    if (!held.made.containPixel({gridIndex: 0}, at)) return hide_hint();
    const [x, y] = held.made.convertFromPixel({gridIndex: 0}, at);
    const value = rows()[y]?.[x];
    if (!value) return hide_hint();
    hint_box.replaceChildren(tip(title(x, y), [[undefined, '', show(value)]]));
    const box = held.element.getBoundingClientRect();
    return place_hint(box.left + at[0] + 14, box.top + at[1], 18);
  });
  zr.on('globalout', hide_hint);
}
