// ECharts in the page's colours. `option` is a function, called again when the colours change.
function chart(parent, name, height, option) {
  const element = make('div.chart', {role: 'img', 'aria-label': name});
  element.style.height = `${height}px`;
  parent.append(element);
  // ECharts takes every wheel over a chart that zooms, also where it then does nothing: the page could not be scrolled.
  for (const event of ['wheel', 'mousewheel']) {
    element.addEventListener(event, (e) => { if (!e.ctrlKey) e.stopPropagation(); }, {capture: true, passive: true});
  }
  const made = echarts.init(element);
  const draw = () => made.setOption({...common(), ...option()}, {notMerge: true});
  draw();
  theme_listeners.push(draw);
  new ResizeObserver(() => made.resize()).observe(element);
  return {made, draw, element};
}

const common = () => ({
  animation: false, backgroundColor: 'transparent',
  textStyle: {fontFamily: getComputedStyle(document.body).fontFamily, color: colours.soft, fontSize: 12},
});

const axis = (more = {}) => ({
  axisLine: {show: false}, axisTick: {show: false}, splitLine: {lineStyle: {color: colours.line}},
  nameTextStyle: {color: colours.faint, fontSize: 11.5}, ...more, axisLabel: {color: colours.soft, fontSize: 11.5, ...more.axisLabel},
});
const value_axis = (name, more = {}) => axis({
  type: 'value', name, nameLocation: 'end', ...more, axisLabel: {formatter: tick, ...more.axisLabel}, nameTextStyle: {align: 'left', color: colours.faint, fontSize: 11.5, ...more.nameTextStyle}});
const category_axis = (data, name, more = {}) => axis({
  type: 'category', data, name, nameLocation: 'middle', nameGap: 26, splitLine: {show: false}, ...more});

const legend = (more = {}) => ({
  top: 0, left: 0, icon: 'roundRect', itemWidth: 10, itemHeight: 10, itemGap: 18, textStyle: {color: colours.ink, fontSize: 12},
  inactiveColor: colours.rule, selectedMode: true, ...more});

// rows: [what, value] or [swatch colour, what, value].
function tip(title, rows, ...more) {
  const body = rows.map(([colour, what, value]) => make('tr', make('td', colour ? swatch(colour) : undefined, what), make('td', value)));
  return make('div.tip', make('b', title), make('table', body), ...more);
}

const tooltip = (formatter, more = {}) => ({
  trigger: 'item', confine: true, backgroundColor: colours.sheet, borderColor: colours.rule, borderWidth: 1, padding: [7, 11],
  textStyle: {color: colours.ink}, transitionDuration: 0, formatter, ...more});

// A slider under the chart from so many categories on, and dragging; the wheel alone scrolls the page.
const zoom_from = 48;
function category_zoom(count, bottom = 6) {
  if (count <= zoom_from) return [];
  return [
    {type: 'inside', zoomOnMouseWheel: 'ctrl', moveOnMouseMove: true, moveOnMouseWheel: false},
    {type: 'slider', height: 16, bottom, ...slider_look()},
  ];
}
const slider_look = () => ({
  borderColor: colours.line, fillerColor: `${colours.accent}26`, handleStyle: {color: colours.sheet, borderColor: colours.accent},
  moveHandleSize: 0, backgroundColor: 'transparent', textStyle: {color: colours.faint, fontSize: 11}, brushSelect: false,
  dataBackground: {lineStyle: {opacity: 0}, areaStyle: {color: colours.line, opacity: .6}},
  selectedDataBackground: {lineStyle: {opacity: 0}, areaStyle: {color: colours.rule, opacity: .6}},
});

// Bars stacked over categories. parts: [name, values]; show: text of a value.
// `order`, if given, is asked for the places of the bars whenever the chart is drawn. `line`: [name, values], over the bars.
function stacked_bars(parent, name, {categories, axis_name, unit, parts, line, title, show, height = 300, order}) {
  const every = [...categories.keys()];
  let places = every;
  return chart(parent, name, height, () => {
    places = order?.() ?? every;
    return bars();
  });
  function bars() { return {
    legend: legend(), grid: {left: 8, right: 10, top: 62, bottom: categories.length > zoom_from ? 62 : 34, containLabel: true},
    xAxis: category_axis(places.map((i) => categories[i]), axis_name), yAxis: value_axis('', {axisLabel: {formatter: (v) => `${tick(v)} ${unit}`}}),
    dataZoom: category_zoom(categories.length),
    tooltip: tooltip((points) => tip(title(places[points[0].dataIndex]), points.map((p) => [p.color, p.seriesName, show(p.value)])),
                     {trigger: 'axis', axisPointer: {type: 'shadow', shadowStyle: {color: colours.ink, opacity: .06}}}),
    series: [...parts.map(([part, values, stack = 'all']) => ({
      type: 'bar', stack, name: part, data: places.map((i) => values[i]), itemStyle: {color: colours[part]}, barMaxWidth: 44, barCategoryGap: '22%',
      emphasis: {disabled: true}})),
    ...(line ? [{type: 'line', name: line[0], data: places.map((i) => line[1][i]), symbol: 'none', itemStyle: {color: colours.ink},
                 lineStyle: {color: colours.ink, width: 1.4, type: [4, 3]}}] : [])],
  }; }
}

// A field of cells: values[row][column], undefined where there is none.
function heat_map(parent, name, height, {values, x_name, y_name, title, show, largest, ramp, zeros = true, zoom = false, x_label, y_label}) {
  const large = values().reduce((sum, row) => sum + row.length, 0) > image_from;
  const held = chart(parent, name, height, () => {
    const rows = values();
    const cells = [];
    if (!large) rows.forEach((row, y) => row.forEach((value, x) => { if (zeros || value > 0) cells.push([x, y, value]); }));
    const most = largest();
    const columns = Math.max(0, ...rows.map((row) => row.length));
    return {
      grid: {left: 8, right: 84, top: 30, bottom: 34, containLabel: true},
      xAxis: category_axis([...Array(columns).keys()].map(x_label ?? String), x_name, {splitLine: {show: false}}),
      yAxis: category_axis([...rows.keys()].map(y_label ?? String), y_name, {inverse: true, nameLocation: 'start', nameGap: 12, nameTextStyle: {align: 'left', color: colours.faint}}),
      dataZoom: zoom ? [{xAxisIndex: 0}, {yAxisIndex: 0}].map((which) => ({type: 'inside', filterMode: 'none', zoomOnMouseWheel: 'ctrl', moveOnMouseWheel: false, ...which})) : [],
      visualMap: {
        type: 'continuous', min: 0, max: most, calculable: !large, hoverLink: !large, text: large ? [show(most), '0'] : undefined, right: 0, top: 26, itemHeight: Math.min(180, height - 110), itemWidth: 12,
        inRange: {color: ramp()}, textStyle: {color: colours.soft, fontSize: 11}, formatter: show, precision: 3,
        handleStyle: {borderColor: colours.rule}, indicatorStyle: {borderColor: colours.rule},
      },
      tooltip: tooltip((p) => tip(title(p.value[0], p.value[1]), [[undefined, '', show(p.value[2])]])),
      series: large ? [image_series(rows, most, ramp())] : [{type: 'heatmap', progressive: 0,
                data: cells.map((value) => ({value, label: {color: value[2] > most / 2 === (colours === LIGHT) ? LIGHT.paper : DARK.paper}})),
                label: {show: cells.length <= 64, formatter: (p) => show(p.value[2]), fontSize: 11.5}, itemStyle: cells.length < 3000 ? {borderColor: colours.paper, borderWidth: 1} : {},
                emphasis: {itemStyle: {borderColor: colours.ink, borderWidth: 1}}}],
    };
  });
  if (large) image_hints(held, values, title, show);
  return held;
}
