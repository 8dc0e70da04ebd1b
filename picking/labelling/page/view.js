// How the micrograph is looked at: contrast, brightness, low-pass, invert, and zoom by buttons.

const $ = (id) => document.getElementById(id);
const SLIDERS = { contrast: 1, brightness: 1, smooth: 4 }; // smooth: sigma, % of the diameter

export class View {
  constructor(viewer, scene) {
    this.viewer = viewer;
    this.scene = scene;
    for (const id of [...Object.keys(SLIDERS), 'invert', 'show-marks']) {
      $(id).addEventListener('input', () => this.update());
    }
    $('reset-view').addEventListener('click', () => this.reset());
    this.update();
  }

  update() {
    const values = Object.keys(SLIDERS).map((id) => [id, Number($(id).value)]);
    const { contrast, brightness, smooth } = Object.fromEntries(values);
    const sigma = (smooth / 100) * this.scene.diameter;
    this.viewer.setFilter({ contrast, brightness, smooth: sigma, invert: $('invert').checked });
    this.scene.visible = $('show-marks').checked;
  }

  toggle(id) {
    $(id).checked = !$(id).checked;
    this.update();
  }

  reset() {
    for (const [id, value] of Object.entries(SLIDERS)) $(id).value = value;
    $('invert').checked = false;
    this.update();
    if (this.viewer.micrograph) this.viewer.fit();
  }

  /** Zoom about the middle. */
  zoom(factor) {
    const { clientWidth: width, clientHeight: height } = this.viewer.canvas;
    this.viewer.zoom(factor, width / 2, height / 2);
  }
}
